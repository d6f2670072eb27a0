//! Stands before every route: authenticates the caller and checks that it may ask, before any of the body is read.

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
    failure::Failure,
    request::{client_ip::ClientIp, dpop},
    routes::Demand,
};
use crate::{
    domain::{Error, RequestId, Result},
    service::{Caller, Origin, Services, tokens},
};

/// The layer that guards one route.
#[derive(Clone)]
pub struct Guard<S = ()> {
    services: Arc<Services>,
    demand: Demand,
    inner: S,
}

impl Guard {
    /// Guards a route that demands `demand`.
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
        // The service that was polled ready is the one to call; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (services, demand) = (self.services.clone(), self.demand);
        Box::pin(async move {
            let proves = demand != Demand::Nothing && dpop::takes_part(request.headers());
            let mut response = match admit(&services, demand, &mut request).await {
                Ok(()) => inner.call(request).await?,
                Err(error) => Failure(error).into_response(),
            };
            if proves {
                dpop::answer(&services, response.headers_mut());
            }
            Ok(response)
        })
    }
}

async fn admit(services: &Services, demand: Demand, request: &mut Request) -> Result<()> {
    if let Demand::Action(action) = demand {
        let path = request.extensions().get::<OriginalUri>().map_or_else(|| request.uri().path(), |uri| uri.path());
        let presented = dpop::presented(services, request.headers(), request.method(), path)?;
        let caller = tokens::authenticate(services, origin(request.extensions()), presented).await?;
        services.permit(&caller, action).await?;
        request.extensions_mut().insert(Authorized(caller));
    }
    Ok(())
}

pub(super) fn origin(extensions: &http::Extensions) -> Origin {
    Origin { ip: extensions.get::<ClientIp>().map(|ip| ip.0), request_id: extensions.get::<RequestId>().cloned() }
}

/// A caller who may do what the route's row in the table demands. Only the guard makes one.
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
        let defect = || Failure(Error::internal("a route whose table row demands no capability asks for its caller"));
        parts.extensions.remove::<Self>().ok_or_else(defect)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(origin(&parts.extensions))
    }
}
