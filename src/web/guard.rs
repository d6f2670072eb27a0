//! The layer around every route that authenticates and authorizes the caller before the handler reads the body.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::{FromRequestParts, OriginalUri, Request},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use http::request::Parts;
use tower::{Layer, Service};

use super::{
    demand::Demand,
    failure::Failure,
    request::{authorization::Authorization, client_ip::ClientIp, dpop},
};
use crate::{
    domain::{AuthFailure, Error, RequestId, Result},
    service::{
        Action, Caller, Identity, Origin, Services,
        tokens::{self, PresentedToken},
    },
    telemetry::{metrics::labels::Refusal, traces},
};

/// The layer, or the service it wraps around a route.
#[derive(Clone)]
pub struct Guard<S = ()> {
    services: Arc<Services>,
    demand: Demand,
    inner: S,
}

impl Guard {
    /// Returns the layer for a route with this demand.
    #[must_use]
    pub const fn layer(services: Arc<Services>, demand: Demand) -> Self {
        Self { services, demand, inner: () }
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { services: self.services.clone(), demand: self.demand, inner }
    }
}

impl<S> Service<Request> for Guard<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // Only the service that was polled may be called, so a clone is left in its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (services, demand) = (self.services.clone(), self.demand);
        Box::pin(async move {
            let headers = request.headers();
            let authorization = Authorization::of(headers);
            let uses_dpop = demand != Demand::Nothing && (authorization.is_dpop() || headers.contains_key(dpop::PROOF));
            let authorized = match demand {
                Demand::Action(action) => {
                    let path = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0).path();
                    let presented = authorization.token(&services, headers, request.method(), path);
                    let policy = traces::Span::stage("policy");
                    let authorizing = authorize(&services, action, origin(request.extensions()), presented);
                    Box::pin(policy.run(authorizing)).await.map(Some)
                }
                Demand::Nothing | Demand::ApiKey | Demand::Client | Demand::ClientOr(_) => Ok(None),
            };
            if let Err(Error::Unauthenticated(AuthFailure::MissingToken)) = &authorized {
                services.metrics().refusals.increment(Refusal::MissingToken);
            }
            let mut response = match authorized {
                Ok(caller) => {
                    if let Some(caller) = caller {
                        request.extensions_mut().insert(Authorized(caller));
                    }
                    inner.call(request).await?
                }
                Err(error) => Failure(error).into_response(),
            };
            if uses_dpop {
                dpop::add_headers(&services, response.headers_mut());
            }
            Ok(response)
        })
    }
}

async fn authorize(
    services: &Services,
    action: Action,
    origin: Origin,
    presented: Result<PresentedToken<'_>>,
) -> Result<Caller> {
    let caller = tokens::authenticate(services, origin, presented?).await?;
    services.admit(&caller, action).await?;
    Ok(caller)
}

pub(super) fn origin(extensions: &http::Extensions) -> Origin {
    Origin {
        ip: extensions.get::<ClientIp>().map(|ip| ip.0),
        request_id: extensions.get::<RequestId>().cloned(),
        identity: extensions.get::<Identity>().cloned().unwrap_or_default(),
    }
}

/// A caller that meets the demand of the route. Only [`Guard`] creates one.
#[derive(Clone)]
pub struct Authorized(Caller);

impl std::ops::Deref for Authorized {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Authorized {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let defect = || Failure(Error::internal("the handler needs a caller, but its route demands no action"));
        parts.extensions.remove::<Self>().ok_or_else(defect)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(origin(&parts.extensions))
    }
}
