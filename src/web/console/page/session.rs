//! Session cookies, managed by `tower-sessions` on top of the session store in the database.

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

/// Returns the layer that reads and sets the session cookie. The session store enforces expiry, so the cookie itself
/// lasts until the browser is closed.
pub(in crate::web::console) fn layer(services: &Arc<Services>) -> SessionManagerLayer<DatabaseStore> {
    let secure = services.settings.issuer.is_https();
    SessionManagerLayer::new(DatabaseStore(services.clone()))
        // With this prefix, browsers reject cookies that are set for a domain, for another path or over plain HTTP.
        .with_name(if secure { "__Host-aims" } else { "aims" })
        .with_secure(secure)
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_path("/")
        .with_expiry(Expiry::OnSessionEnd)
}

/// Returns the database key of a session: a hash of the cookie value, so that read access to the database does not allow
/// hijacking a session.
pub(in crate::web::console) fn key(id: &Id) -> KeyHash {
    Sha256::digest(id.0.to_be_bytes()).into()
}

/// Session field: the administrator who has entered the password but not yet the second factor.
const PENDING: &str = "second_factor_of";

/// Session field: the session that was active when the password was entered.
const PRESENTED: &str = "in_place_of";

/// Stores a half-completed sign-in under a new cookie. A session of the old cookie stays active until the sign-in is
/// completed.
pub(in crate::web::console) async fn await_second_factor(session: &Session, pending: Pending) -> Result<()> {
    let presented: Option<KeyHash> = session.get(PRESENTED).await.map_err(failed)?;
    let presented = presented.or_else(|| session.id().map(|id| key(&id)));
    session.cycle_id().await.map_err(failed)?;
    if let Some(presented) = presented {
        session.insert(PRESENTED, presented).await.map_err(failed)?;
    }
    session.insert(PENDING, pending).await.map_err(failed)
}

/// Returns the half-completed sign-in that still waits for its second factor.
pub(in crate::web::console) async fn pending(services: &Services, session: &Session) -> Result<Option<Pending>> {
    // The value may have been stored by an earlier version in another format.
    let Some(stored) = session.get_value(PENDING).await.map_err(failed)? else { return Ok(None) };
    match serde_json::from_value::<Pending>(stored) {
        Ok(pending) if pending.is_valid(services).await? => Ok(Some(pending)),
        _ => Ok(None),
    }
}

/// Changes the session cookie, which prevents session fixation. Discards a half-completed sign-in, because completing
/// it later would replace the session of the administrator who signs in now.
pub(in crate::web::console) async fn renew(session: &Session) -> Result<Keys> {
    session.remove_value(PENDING).await.map_err(failed)?;
    let presented: Option<KeyHash> = session.remove(PRESENTED).await.map_err(failed)?;
    let old = presented.into_iter().chain(session.id().map(|id| key(&id))).collect();
    session.cycle_id().await.map_err(failed)?;
    session.save().await.map_err(failed)?;
    let new = session.id().ok_or_else(|| Error::internal("a saved session has no identifier"))?;
    Ok(Keys { old, new: key(&new) })
}

pub(in crate::web::console) fn failed(error: tower_sessions::session::Error) -> Error {
    Error::Unavailable(Some(Box::new(error)))
}

/// The session store in the database.
#[derive(Clone)]
pub(in crate::web::console) struct DatabaseStore(Arc<Services>);

impl fmt::Debug for DatabaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseStore")
    }
}

#[async_trait]
impl SessionStore for DatabaseStore {
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
        // Never reached: `sessions::load` does not return expired sessions.
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

#[expect(clippy::needless_pass_by_value, reason = "the signature that `map_err` requires")]
fn backend(error: Error) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}
