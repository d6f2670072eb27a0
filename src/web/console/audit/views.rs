//! Saved views: filters of the audit log that an administrator gave a name.

use axum::{
    extract::{Path, State},
    response::Response,
};
use tower_sessions::Session;
use uuid::Uuid;

use super::filters::{self, LIST, Listing};
use crate::{
    domain::{Error, Invalid, Result, text},
    service::audit::views,
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, back_to},
                query::Params,
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// Maximum length of a name in characters.
const NAME_MAX: usize = 60;
/// Maximum length of a query in bytes.
const QUERY_MAX: usize = 2_000;

/// Returns the filters of a query string that the list accepts.
fn parse(query: &str) -> Result<Params> {
    let invalid = |message: &'static str| Error::field(&["query"], Invalid::new("query_invalid", message));
    if query.len() > QUERY_MAX {
        return Err(invalid("These filters are too long to be saved"));
    }
    let mut fields = Fields::of_query(query)?;
    let listing = Listing::read(&mut fields);
    fields.finish(listing)?;
    let params = filters::filters(&Params::parse(query));
    let is_known = |(name, _): &(String, String)| filters::LABELS.iter().any(|(known, _)| known == name);
    if params.pairs().is_empty() || !params.pairs().iter().all(is_known) {
        return Err(invalid("Set a filter first, then save it as a view"));
    }
    Ok(params)
}

/// Saves the filters as a view.
pub(in crate::web::console) async fn save(
    State(services): Shared,
    admin: Admin,
    session: Session,
    form: Form,
) -> Result<Response, Failure> {
    let name = form.read(|fields| fields.required("name", |name| text::line(name.trim(), 1, NAME_MAX)));
    let saved = async {
        let (name, params) = (name?, parse(form.get("query"))?);
        let query = filters::query(&params);
        views::save(&services, &admin, name.clone(), query).await?;
        Ok((name, params.href(LIST)))
    };
    match saved.await {
        Ok((name, path)) => back_to(&session, &path, format!("View saved: {name}")).await,
        Err(error @ (Error::Invalid(_) | Error::Conflict(_))) => {
            let problems = Problems::from_error(error, "name")?;
            let message = ["name", "query"].iter().find_map(|field| problems.of(field)).unwrap_or_default();
            let path = parse(form.get("query")).map_or_else(|_| LIST.to_owned(), |params| params.href(LIST));
            let flash = Flash { good: false, ..Flash::done(format!("The view was not saved. {message}.")) };
            flash.redirect(&session, &path).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes a view.
pub(in crate::web::console) async fn delete(
    State(services): Shared,
    admin: Admin,
    session: Session,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = Uuid::try_parse(&id).map_err(|_| Error::NotFound("Saved view"))?;
    let name = views::delete(&services, &admin, id).await?;
    let path = parse(form.get("query")).map_or_else(|_| LIST.to_owned(), |params| params.href(LIST));
    back_to(&session, &path, format!("View deleted: {name}")).await
}
