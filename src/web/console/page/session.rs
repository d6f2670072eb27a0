//! The cookie of a session, kept by `tower-sessions` over the house's own store.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tower_sessions::{
    Expiry, Session, SessionManagerLayer, SessionStore,
    cookie::SameSite,
    session::{Id, Record},
    session_store,
};

use crate::{
    domain::{Error, Result},
    service::{
        Services,
        people::{
            sessions::{self, KeyHash},
            sign_in::{Keys, Pending},
        },
    },
};

/// The layer that reads and sets the cookie. How long a session lasts is decided where it is kept, so the cookie itself
/// lasts as long as the browser does.
pub(in crate::web::console) fn layer(services: &Arc<Services>) -> SessionManagerLayer<Kept> {
    let secure = services.settings.issuer.is_https();
    SessionManagerLayer::new(Kept(services.clone()))
        // The prefix has browsers refuse a cookie that was set for a path, a domain or by plain HTTP.
        .with_name(if secure { "__Host-aims" } else { "aims" })
        .with_secure(secure)
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_path("/")
        .with_expiry(Expiry::OnSessionEnd)
}

/// What a session is found by: the hash of what its cookie holds, so that who reads the database cannot become anybody.
pub(in crate::web::console) fn key(id: &Id) -> KeyHash {
    Sha256::digest(id.0.to_be_bytes()).into()
}

/// Who gave the right password and still owes the second factor.
const PENDING: &str = "second_factor_of";

/// The session that was presented with the password.
const PRESENTED: &str = "in_place_of";

/// Keeps who still owes the second factor, under another cookie. Whoever is signed in with the present one stays so until the other
/// begins.
pub(in crate::web::console) async fn await_second_factor(session: &Session, pending: Pending) -> Result<()> {
    let presented: Option<KeyHash> = session.get(PRESENTED).await.map_err(failed)?;
    let presented = presented.or_else(|| session.id().map(|id| key(&id)));
    session.cycle_id().await.map_err(failed)?;
    if let Some(presented) = presented {
        session.insert(PRESENTED, presented).await.map_err(failed)?;
    }
    session.insert(PENDING, pending).await.map_err(failed)
}

/// Who still owes the second factor, and may give it.
pub(in crate::web::console) async fn pending(services: &Services, session: &Session) -> Result<Option<Pending>> {
    // What an earlier version kept is taken for nothing.
    let Some(kept) = session.get_value(PENDING).await.map_err(failed)? else { return Ok(None) };
    match serde_json::from_value::<Pending>(kept) {
        Ok(pending) if pending.counts(services).await? => Ok(Some(pending)),
        _ => Ok(None),
    }
}

/// Gives the session another cookie: whoever knew the one from before the sign-in knows nothing. Nobody owes it a second factor
/// any more: it would turn the session of whoever signs in now into another's.
pub(in crate::web::console) async fn renew(session: &Session) -> Result<Keys> {
    session.remove_value(PENDING).await.map_err(failed)?;
    let presented: Option<KeyHash> = session.remove(PRESENTED).await.map_err(failed)?;
    let old = presented.into_iter().chain(session.id().map(|id| key(&id))).collect();
    session.cycle_id().await.map_err(failed)?;
    session.save().await.map_err(failed)?;
    let new = session.id().ok_or_else(|| Error::internal("a session that was saved has no identifier"))?;
    Ok(Keys { old, new: key(&new) })
}

pub(in crate::web::console) fn failed(error: tower_sessions::session::Error) -> Error {
    Error::Unavailable(Some(Box::new(error)))
}

/// Sessions in the database.
#[derive(Clone)]
pub(in crate::web::console) struct Kept(Arc<Services>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[async_trait]
impl SessionStore for Kept {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let data = encode(&record.data)?;
        while !sessions::create(&self.0, key(&record.id), data.clone()).await.map_err(backend)? {
            record.id = Id::default();
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        sessions::save(&self.0, key(&record.id), encode(&record.data)?).await.map_err(backend)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let Some(data) = sessions::load(&self.0, key(id)).await.map_err(backend)? else { return Ok(None) };
        let data: HashMap<_, _> =
            serde_json::from_str(&data).map_err(|error| session_store::Error::Decode(error.to_string()))?;
        // Never reached: the store above returns nothing that has ended.
        let expiry_date = OffsetDateTime::UNIX_EPOCH + time::Duration::days(365 * 1_000);
        Ok(Some(Record { id: *id, data, expiry_date }))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        sessions::remove(&self.0, key(id)).await.map_err(backend)
    }
}

fn encode(data: &HashMap<String, serde_json::Value>) -> session_store::Result<String> {
    serde_json::to_string(data).map_err(|error| session_store::Error::Encode(error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn backend(error: Error) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}
