//! Which master key sealed how many values.

use crate::{
    crypto::{MasterKey, MasterKeyId, MasterKeys},
    domain::{Error, Result},
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::{
        Conn,
        tokens::sealed::{self, Kind, Rotation},
    },
};

/// Number of values that are read at once.
const PAGE: i64 = 200;

/// How many values of a kind each key sealed.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// The kind.
    pub kind: Kind,
    /// With the newest key.
    pub newest: u64,
    /// With the previous key.
    pub previous: u64,
    /// With neither. They cannot be opened.
    pub unknown: u64,
}

/// The master keys of a process, and what they sealed.
#[derive(Clone, Debug)]
pub struct Status {
    /// The key that seals new values.
    pub sealing: MasterKeyId,
    /// The newest key.
    pub newest: MasterKeyId,
    /// The previous key, if it is still known.
    pub previous: Option<MasterKeyId>,
    /// The last rotation, if there was one.
    pub rotation: Option<Rotation>,
    /// The number of values by kind and key.
    pub tallies: Vec<Tally>,
}

/// Returns the master keys and what they sealed. Returns `None` if there is no master key.
///
/// # Errors
/// [`Error::Denied`]; [`Error::Unavailable`] if the current master key is unknown or the database fails.
pub async fn read(services: &Services, caller: &Caller) -> Result<Option<Status>, Error> {
    services.permit(caller, Action::RotateMasterKey).await?;
    let Some(current) = &services.master_key else { return Ok(None) };
    let keys = current.up_to_date(&services.store, &services.env).await?;
    let mut read = services.store.read().await?;
    Ok(Some(Status {
        sealing: super::sealing_key(read.conn(), &keys).await?.id(),
        newest: keys.newest().id(),
        previous: keys.previous().map(MasterKey::id),
        rotation: sealed::last_rotation(read.conn()).await?,
        tallies: count(read.conn(), &keys).await?,
    }))
}

/// Opens every sealed value, and counts by the key that opens it.
pub(super) async fn count(mut conn: Conn<'_>, keys: &MasterKeys) -> Result<Vec<Tally>> {
    let mut tallies = Vec::with_capacity(Kind::ALL.len());
    for kind in Kind::ALL {
        let mut tally = Tally { kind, newest: 0, previous: 0, unknown: 0 };
        let mut after = None;
        loop {
            let page = sealed::page(conn.reborrow(), kind, after.as_deref(), PAGE).await?;
            for sealed in &page {
                let opener = keys.opener(&sealed.purpose(), &sealed.value).map(MasterKey::id);
                match opener {
                    Some(id) if id == keys.newest().id() => tally.newest += 1,
                    Some(_) => tally.previous += 1,
                    None => tally.unknown += 1,
                }
            }
            let Some(last) = page.into_iter().next_back() else { break };
            after = Some(last.owner);
        }
        tallies.push(tally);
    }
    Ok(tallies)
}
