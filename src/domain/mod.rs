//! Types and rules without I/O. Nothing here depends on HTTP, SQL, the clock or the network.

pub mod agent;
pub mod audit;
pub mod capability;
pub mod credential;
pub mod error;
pub mod ids;
pub mod invalid;
pub mod page;
pub mod person;
mod string_enum;
pub mod text;
pub mod timestamp;
pub mod token;

pub use agent::{Agent, AgentName, AgentStatus, AgentType};
pub use capability::{Capability, CapabilityName, CapabilitySet};
pub use credential::api_key::{ApiKey, ApiKeyStatus, KeyState, Selection};
pub use credential::key_limits::KeyLimits;
pub use error::{AuthFailure, Denial, Error, Result};
pub use ids::{
    ActorId, AdministratorId, AgentId, ApiKeyId, BulkActId, CapabilityId, DelegationId, FederatedIdentityId,
    InvitationId, PasskeyId, ProtectedResourceId, PublicKeyId, RequestId, SessionId, TokenId,
};
pub use invalid::Invalid;
pub use page::{Limit, Page};
pub use person::administrator::{Administrator, Role, Username};
pub use person::invitation::Invitation;
pub use text::public_url::PublicUrl;
pub use timestamp::{Timestamp, schedule::Schedule};
pub use token::protected_resource::{ProtectedResource, ResourceUri};
