//! Audit records as sentences: "zoe suspended planner-us: key leaked".

use serde_json::Value;

use crate::{
    domain::{
        agent::{labels::Labels, selector::Term},
        audit::{AuditAction, Record},
    },
    service::audit::names::Names,
};

/// Describes a record in one sentence, without a period at its end.
pub(in crate::web::console) fn sentence(record: &Record, names: &Names) -> String {
    let told = Told { record, names, details: serde_json::from_str(&record.details).unwrap_or_default() };
    match AuditAction::parse(&record.action) {
        Ok(action) => told.sentence(action),
        // Imported records may have events that AIMS does not know.
        Err(_) => format!("{}: {}", told.actor(), record.action),
    }
}

struct Told<'r> {
    record: &'r Record,
    names: &'r Names,
    details: Value,
}

impl Told<'_> {
    /// A new event does not compile without a sentence.
    fn sentence(&self, action: AuditAction) -> String {
        use AuditAction as A;
        let (actor, agent) = (self.actor(), self.agent());
        let did = |what: &str| format!("{actor} {what}");
        let reason = self.after(": ", "reason");
        match action {
            A::TokenIssued | A::TokenGranted => did(&format!("obtained a token with {}", self.credential())),
            A::TokenExchanged => did(&format!("obtained a token to act for {agent}")),
            A::TokenRefused => format!("{} was refused a token{}", self.claimant(), self.why()),
            A::TokenRevoked => did(&format!("revoked a token of {agent}")),
            A::TokensRevoked => did(&format!("revoked all tokens of {agent}")),
            A::ResourceCreated => did(&format!("created {}", self.named("resource", "identifier"))),
            A::ResourceUpdated => did(&format!("edited {}", self.named("resource", "identifier"))),
            A::ResourceDeleted => did(&format!("deleted {}", self.named("resource", "identifier"))),
            A::AuthFailed => format!("{} failed to authenticate{}", self.claimant(), self.why()),
            A::AuthzDenied => did(&self.denial()),
            A::RefusalsSuppressed => self.suppressed(),
            A::AnswerRepeated => did(&self.repetition()),
            A::AgentCreated => did(&format!("created the agent {agent}{}", self.owner())),
            A::AgentUpdated => did(&self.labelling().unwrap_or_else(|| format!("edited {agent}{}", self.changed()))),
            A::AgentSuspended => did(&format!("suspended {agent}{reason}")),
            A::AgentReactivated => did(&format!("reactivated {agent}{reason}")),
            A::AgentRevoked => did(&format!("revoked {agent}{reason}")),
            A::AgentDeleted => did(&format!("deleted {agent}{reason}")),
            A::KeyCreated => did(&format!("created {} for {agent}", self.key())),
            A::KeyRotated => did(&format!("rotated {} of {agent}", self.key())),
            A::KeyRevoked => did(&format!("revoked {} of {agent}{reason}", self.key())),
            A::PublicKeyRegistered => did(&format!("added a public key{} to {agent}", self.after(" ", "kid"))),
            A::PublicKeyRemoved => did(&format!("revoked a public key{} of {agent}", self.after(" ", "kid"))),
            A::DelegateAdded => did(&format!("allowed {} to act for {agent}", self.delegate())),
            A::DelegateRemoved => did(&format!("removed {} as a delegate of {agent}", self.delegate())),
            A::FederatedIdentityAdded => did(&format!(
                "allowed {agent} to authenticate with tokens from {}",
                self.text_or("issuer", "another issuer")
            )),
            A::FederatedIdentityRemoved => did(&format!(
                "stopped {agent} from authenticating with tokens from {}",
                self.text_or("issuer", "another issuer")
            )),
            A::CapabilityCreated => did(&format!("created {}", self.named("capability", "capability"))),
            A::CapabilityUpdated => did(&format!("edited {}", self.named("capability", "capability"))),
            A::CapabilityDeleted => did(&format!("deleted {}", self.named("capability", "capability"))),
            A::CapabilityGranted => did(&format!("granted {} to {agent}", self.text_or("capability", "a capability"))),
            A::CapabilityRevoked => {
                did(&format!("revoked {} from {agent}", self.text_or("capability", "a capability")))
            }
            A::InvitationCreated => did(&format!("invited {}{}", self.recipient(), self.after(" as ", "role"))),
            A::InvitationRenewed => did(&format!("renewed the invitation of {}", self.recipient())),
            A::InvitationWithdrawn => did(&format!("withdrew the invitation of {}", self.recipient())),
            A::InvitationAccepted => format!("{} accepted an invitation", self.text_or("username", "An administrator")),
            A::AdministratorCreated => {
                did(&format!("created the administrator {}{}", self.person(), self.after(" as ", "role")))
            }
            A::AdministratorUpdated => did(&format!("edited the administrator {}{}", self.person(), self.changed())),
            A::AdministratorDisabled => did(&format!("disabled the administrator {}", self.person())),
            A::AdministratorEnabled => did(&format!("enabled the administrator {}", self.person())),
            A::PasswordChanged if self.is_own() => did("changed their password"),
            A::PasswordChanged => did(&format!("reset the password of {}", self.person())),
            A::FactorChanged => self.factor(),
            A::SignedIn => did(&format!("signed in{}", self.after(" with ", "method"))),
            A::SignInFailed => format!("Somebody failed to sign in as {}{}", self.claimed_person(), self.why()),
            A::ProofRenewed => did(&format!("confirmed their identity{}", self.after(" with ", "method"))),
            A::SignedOut if self.is_own() => did("signed out"),
            A::SignedOut => did(&format!("ended the sessions of {}", self.person())),
            A::SetupTokenCreated => did("created a setup link"),
            A::AuditArchived => {
                let (first, last) = (self.text_or("first_seq", "?"), self.text_or("last_seq", "?"));
                did(&format!("moved records {first} to {last} to an archive"))
            }
            A::SigningKeyCreated => did(&format!("created {}", self.named("signing key", "kid"))),
            A::SigningKeyRotated => did(&format!("rotated {}", self.named("signing key", "from"))),
            A::SigningKeyWithdrawn => did(&format!("withdrew {}", self.named("signing key", "kid"))),
            A::BackupCreated => did(&format!("made a backup{}", self.after(" up to record ", "head_seq"))),
            A::BackupFailed => did(&format!("failed to make a scheduled backup{reason}")),
            A::BackupRestored => did(&format!("restored a backup{}", self.after(" made at ", "made_at"))),
            A::MasterKeyRotated => did(&format!("replaced {}", self.named("master key", "from"))),
            A::MasterKeyValuesResealed => did(&format!("re-encrypted {}", self.resealed())),
            A::MasterKeyRetired => did(&format!("retired {}", self.named("master key", "from"))),
            A::SeedImported => did("imported a seed database"),
        }
    }

    fn resealed(&self) -> String {
        let count = self.details.get("count").and_then(Value::as_u64).unwrap_or_default();
        let what = match self.details.get("kind").and_then(Value::as_str) {
            Some("signing_keys") => "signing key",
            Some("authenticators") => "authenticator secret",
            _ => "secret",
        };
        format!("{count} {what}{}", if count == 1 { "" } else { "s" })
    }

    fn actor(&self) -> String {
        match self.record.actor {
            Some(id) => self.names.actor_or_id(id),
            None if self.record.success => "AIMS".to_owned(),
            None => "An unknown caller".to_owned(),
        }
    }

    /// The agent that the event affects.
    fn agent(&self) -> String {
        let subject = self.record.subject.map(|id| self.names.actor_or_id(id.into()));
        subject.or_else(|| self.names.target(self.record)).unwrap_or_else(|| "an unknown agent".to_owned())
    }

    /// The agent that failed to authenticate, if it is known.
    fn claimant(&self) -> String {
        let subject = self.record.subject.map(Into::into);
        self.record.actor.or(subject).map_or_else(|| self.actor(), |id| self.names.actor_or_id(id))
    }

    fn person(&self) -> String {
        self.names.target(self.record).unwrap_or_else(|| "an administrator".to_owned())
    }

    fn recipient(&self) -> String {
        self.text_or("recipient", "an administrator")
    }

    fn claimed_person(&self) -> String {
        self.names.target(self.record).unwrap_or_else(|| self.text_or("username", "an unknown administrator"))
    }

    /// Returns true if an administrator did this to their own account.
    fn is_own(&self) -> bool {
        let actor = self.record.actor.map(|id| id.to_string());
        actor.is_some() && actor == self.record.resource_id
    }

    fn key(&self) -> String {
        self.names.target(self.record).map_or_else(|| "a key".to_owned(), |name| format!("the key {name}"))
    }

    fn credential(&self) -> String {
        let name = self.names.target(self.record).map(|name| format!(" {name}")).unwrap_or_default();
        match self.record.resource_type.as_deref() {
            Some("public_key") => format!("the public key{name}"),
            Some("federated_identity") => format!("a token of another issuer{name}"),
            _ => format!("the key{name}"),
        }
    }

    fn delegate(&self) -> String {
        self.names.target(self.record).unwrap_or_else(|| self.text_or("delegate", "another agent"))
    }

    fn owner(&self) -> String {
        self.after(" owned by ", "owner")
    }

    /// The fields that an edit changed.
    fn changed(&self) -> String {
        let changes = self.details.get("changes").and_then(Value::as_object);
        let fields: Vec<_> = changes.into_iter().flatten().map(|(field, _)| field.replace('_', " ")).collect();
        if fields.is_empty() { String::new() } else { format!(": {}", fields.join(", ")) }
    }

    /// The labels that an edit set and removed. `None` if it changed anything else, and if the record shows only a part.
    fn labelling(&self) -> Option<String> {
        let changes = self.details.get("changes")?.as_object().filter(|changes| changes.len() == 1)?;
        let labels = changes.get("labels")?.as_object().filter(|change| change.len() == 2)?;
        let side = |name| Labels::parse_lines(labels.get(name)?.as_str()?).ok();
        let (before, after) = (side("from")?, side("to")?);
        let set = after.iter().filter(|(key, value)| before.get(key) != Some(*value));
        let set: Vec<_> = set.map(|(key, value)| Term::equals(key, value).to_string()).collect();
        let removed: Vec<_> = before.iter().map(|(key, _)| key).filter(|key| after.get(key).is_none()).collect();
        let agent = self.agent();
        Some(match (set.is_empty(), removed.is_empty()) {
            (false, true) => format!("labelled {agent}: {}", set.join(", ")),
            (false, false) => format!("labelled {agent}: {}; removed {}", set.join(", "), removed.join(", ")),
            (true, _) => format!("removed labels of {agent}: {}", removed.join(", ")),
        })
    }

    fn denial(&self) -> String {
        let action = spaced(&self.text("action"));
        let what = if action.is_empty() { "was denied".to_owned() } else { format!("was denied: {action}") };
        let (capability, role) = (self.after(" requires ", "capability"), self.after(" requires the role ", "role"));
        format!("{what}{}", if capability.is_empty() { role } else { capability })
    }

    fn repetition(&self) -> String {
        match spaced(&self.text("action")) {
            action if action.is_empty() => "repeated a request".to_owned(),
            action => format!("repeated a request: {action}"),
        }
    }

    fn suppressed(&self) -> String {
        let count = self.text_or("suppressed", "Some");
        let of = match (self.record.actor, self.record.ip.as_deref(), self.text("network")) {
            (Some(id), ..) => self.names.actor_or_id(id),
            (None, Some(ip), _) => ip.to_owned(),
            (None, None, network) if !network.is_empty() => network,
            _ => "other callers".to_owned(),
        };
        format!("{count} more refusals of {of} were counted and not recorded one by one")
    }

    fn factor(&self) -> String {
        let (factor, change) = (self.text("factor"), self.text_or("change", "changed"));
        let what = match factor.as_str() {
            "passkey" => "a passkey".to_owned(),
            "authenticator" => "an authenticator".to_owned(),
            "" => "a second factor".to_owned(),
            _ => factor.replace('_', " "),
        };
        let of = if self.is_own() { String::new() } else { format!(" of {}", self.person()) };
        format!("{} {change} {what}{}{of}", self.actor(), self.after(" ", "name"))
    }

    /// The reason of a refusal.
    fn why(&self) -> String {
        self.after(": ", "reason").replace('_', " ")
    }

    /// A member of the details, or nothing.
    fn text(&self, member: &str) -> String {
        match self.details.get(member) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// A member of the details, or these words. Imported records lack some members.
    fn text_or(&self, member: &str, otherwise: &str) -> String {
        Some(self.text(member)).filter(|text| !text.is_empty()).unwrap_or_else(|| otherwise.to_owned())
    }

    /// An object that a member of the details names.
    fn named(&self, kind: &str, member: &str) -> String {
        match self.text(member) {
            name if name.is_empty() => format!("a {kind}"),
            name => format!("the {kind} {name}"),
        }
    }

    /// A member of the details after some words, or nothing if it is missing.
    fn after(&self, words: &str, member: &str) -> String {
        match self.text(member) {
            text if text.is_empty() => text,
            text => format!("{words}{text}"),
        }
    }
}

/// Divides the words of a name in camel case: `SuspendAgent` becomes `suspend agent`.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        ActorId, AgentId, Timestamp,
        audit::{GENESIS, Record},
    };

    fn record(action: &str, details: &Value) -> Record {
        Record {
            seq: 1,
            id: Uuid::nil(),
            at: Timestamp::from_secs(0),
            actor: Some(ActorId(Uuid::from_u128(1))),
            subject: Some(AgentId(Uuid::from_u128(2))),
            action: action.to_owned(),
            resource_type: None,
            resource_id: None,
            details: details.to_string(),
            ip: None,
            success: true,
            request_id: None,
            prev_hash: GENESIS,
            hash: GENESIS,
        }
    }

    #[test]
    fn every_event_has_a_sentence() {
        for action in AuditAction::ALL {
            let text = sentence(&record(action.as_str(), &json!({})), &Names::default());
            assert!(text.len() > 10 && !text.ends_with([' ', '.', ':']) && !text.contains("  "), "{text:?}");
            assert!(text.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || c == ' '), "{text:?}");
        }
    }

    #[test]
    fn sentences_contain_the_reason() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let told = |action, details: Value| sentence(&record(action, &details), &Names::default());
        assert_eq!(
            told("agent.suspended", json!({ "reason": "key leaked" })),
            format!("{one} suspended {two}: key leaked")
        );
        assert_eq!(
            told("authz.denied", json!({ "action": "SuspendAgent", "capability": "admin:*" })),
            format!("{one} was denied: suspend agent requires admin:*")
        );
        assert_eq!(
            told("auth.failed", json!({ "reason": "key_revoked" })),
            format!("{one} failed to authenticate: key revoked")
        );
        assert_eq!(
            told("request.repeated", json!({ "action": "CreateKey", "first_request_id": "r-1" })),
            format!("{one} repeated a request: create key")
        );
        assert_eq!(told("seed.thing", json!({})), format!("{one}: seed.thing"));
        let labelled = |from: &str, to: &str| {
            told("agent.updated", json!({ "changes": { "labels": { "from": from, "to": to } } }))
        };
        assert_eq!(labelled("", "env=prod\nteam=a b"), format!("{one} labelled {two}: env=prod, team=\"a b\""));
        assert_eq!(
            labelled("env=test\nold=\nx=y", "env=prod\nx=y"),
            format!("{one} labelled {two}: env=prod; removed old")
        );
        assert_eq!(labelled("env=test\nx=y", ""), format!("{one} removed labels of {two}: env, x"));
        let long =
            json!({ "changes": { "labels": { "from": "a=…", "to": "b=…", "from_sha256": "0", "to_sha256": "1" } } });
        assert_eq!(told("agent.updated", long), format!("{one} edited {two}: labels"));
    }
}
