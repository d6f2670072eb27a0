//! Static files. They are part of the binary, and their paths contain a content hash, so browsers cache them forever.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header::CACHE_CONTROL, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::compression::CompressionLayer;

macro_rules! assets {
    ($($constant:ident, $file:literal, $kind:literal;)+) => {
        $(
            #[doc = concat!("The path of `", $file, "`.")]
            pub const $constant: &str = concat!("/console/static/", env!(concat!("ASSET_", stringify!($constant))));
        )+

        /// Path, media type and content of every file.
        const ASSETS: &[(&str, &str, &[u8])] =
            &[$(($constant, $kind, include_bytes!(concat!(env!("OUT_DIR"), "/", $file)))),+];
    };
}

assets! {
    HTMX, "htmx.min.js", "text/javascript; charset=utf-8";
    SCRIPT, "console.js", "text/javascript; charset=utf-8";
    STYLE, "console.css", "text/css; charset=utf-8";
    ICONS, "icons.svg", "image/svg+xml";
    FAVICON, "favicon.svg", "image/svg+xml";
}

/// Serves the files. Compression is safe here because the files contain no secrets.
pub(in crate::web::console) fn router() -> Router {
    let routes = ASSETS.iter().fold(Router::new(), |router, &(path, kind, content)| {
        router.route(path, get(move || async move { file(kind, content) }))
    });
    routes.layer(CompressionLayer::new())
}

fn file(kind: &'static str, content: &'static [u8]) -> Response {
    let headers: [(HeaderName, HeaderValue); 2] = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    (headers, content).into_response()
}
