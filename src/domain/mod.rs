//! Types and rules of the field, with no I/O: nothing here knows HTTP, SQL, the clock or the network.

pub mod administrator;
pub mod agent;
pub mod api_key;
pub mod audit;
pub mod capability;
pub mod delegation;
pub mod error;
pub mod federation;
pub mod ids;
pub mod json;
pub mod key_limits;
pub mod network;
pub mod page;
pub mod password;
pub mod protected_resource;
pub mod public_key;
pub mod public_url;
pub mod text;
pub mod timestamp;
pub mod token;
pub mod uri;

pub use administrator::{Administrator, Role, Username};
pub use agent::{Agent, AgentName, AgentStatus, AgentType};
pub use api_key::{ApiKey, ApiKeyStatus, Selection};
pub use capability::{Capability, CapabilityName, CapabilitySet};
pub use error::{AuthFailure, Denial, Error, Invalid, Result};
pub use ids::{
    ActorId, AdministratorId, AgentId, ApiKeyId, CapabilityId, DelegationId, FederatedIdentityId, PasskeyId,
    ProtectedResourceId, PublicKeyId, RequestId, SessionId, TokenId,
};
pub use key_limits::KeyLimits;
pub use page::{Limit, Page};
pub use protected_resource::{ProtectedResource, ResourceUri};
pub use public_url::PublicUrl;
pub use timestamp::Timestamp;
