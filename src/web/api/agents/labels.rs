//! Labels in bodies and queries, and the endpoint that labels many agents.

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, Schema, Type},
};

use crate::{
    domain::{
        AgentId, Invalid, Result,
        agent::{
            label_change::LabelChange,
            labels::{Labels, parse_key},
            selector::Selector,
        },
        text,
    },
    service::agents::labelling::{self, Labelled},
    web::{
        api::Shared,
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody},
            fields::Fields,
            schema::{self, body_schemas},
        },
    },
};

pub(super) const LABELS: &str = "Labels: keys and values to select the agent by. At most 32.";
pub(super) const NEW_LABELS: &str = "Labels that replace all present ones. An empty object removes every label.";
pub(super) const SELECTOR: &str = "Only agents whose labels fulfil all of these conditions, separated by commas: `key` \
    (has the label), `!key`, `key=value`, `key!=value`, `key in (a,b)`, `key notin (a,b)`. `!=` and `notin` also match \
    agents without the label. Values are compared in the same case. Put a value with other characters than letters, \
    digits and `._/:@+-` in double quotes.";

fn key() -> ObjectBuilder {
    schema::pattern(format!("^{}$", Labels::KEY_PATTERN)).max_length(Some(Labels::KEY_MAX))
}

fn labels() -> ObjectBuilder {
    let value = schema::pattern(text::trimmed_pattern()).max_length(Some(Labels::VALUE_MAX));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(key()))
        .additional_properties(Some(Schema::from(value)))
        .max_properties(Some(Labels::MAX))
}

/// The labels of an agent in an answer.
pub(super) fn described() -> ObjectBuilder {
    labels().description(Some("Labels: keys and values to select the agent by."))
}

pub(super) fn selector() -> ObjectBuilder {
    schema::optional_line(Selector::MAX_LEN)
}

/// Reads labels from the member `name` of a body.
pub(super) fn read(fields: &mut Fields, name: &str, description: &'static str) -> Option<Labels> {
    fields.doc(description, labels).optional_value(name, parse)
}

fn parse(value: &Value) -> Result<Labels, Invalid> {
    let Value::Object(members) = value else {
        return Err(Invalid::new("model_attributes_type", "Input should be a JSON object"));
    };
    let pair = |(key, value): (&'_ String, &'_ Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        _ => Err(Invalid::new("string_type", "Every value should be a valid string")),
    };
    let pairs: Vec<_> = members.iter().map(pair).collect::<Result<_, _>>()?;
    Labels::parse(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// A change of labels, and the agents to change.
pub struct LabelAgents {
    selector: Selector,
    change: LabelChange,
    dry_run: bool,
}

body_schemas! {
    LabelAgents => "LabelAgents", "Labels to set and remove, and the agents to change. Other labels stay.";
}

impl FromBody for LabelAgents {
    fn read(fields: &mut Fields) -> Option<Self> {
        const REMOVE: &str = "Keys of the labels to remove. A key that is also in `set` is set.";
        let selector = fields.doc(SELECTOR, || selector().min_length(Some(1))).required("selector", Selector::parse);
        let set = read(fields, "set", "Labels to set.");
        let keys = || ArrayBuilder::new().items(key()).max_items(Some(Labels::MAX)).build();
        let remove = fields.doc(REMOVE, keys).optional_value("remove", parse_keys);
        let flag = || ObjectBuilder::new().schema_type(Type::Boolean);
        let dry_run = fields
            .doc("`true` only returns which agents would change.", flag)
            .optional_value("dry_run", |value| value.as_bool().ok_or_else(invalid_flag));
        let change = LabelChange::new(set.unwrap_or_default(), remove.unwrap_or_default());
        Some(Self { selector: selector?, change, dry_run: dry_run.unwrap_or(false) })
    }
}

fn invalid_flag() -> Invalid {
    Invalid::new("bool_type", "Input should be true or false")
}

fn parse_keys(value: &Value) -> Result<Vec<String>, Invalid> {
    let keys = value.as_array().ok_or_else(|| Invalid::new("list_type", "Input should be an array"))?;
    if keys.len() > Labels::MAX {
        return Err(Invalid::new("too_long", format!("Array should have at most {} items", Labels::MAX)));
    }
    let key = |key: &Value| parse_key(key.as_str().unwrap_or_default());
    keys.iter().map(key).collect()
}

/// Which agents changed.
#[derive(Serialize, ToSchema)]
#[schema(as = LabelledAgents)]
pub struct LabelledBody {
    /// True if nothing was changed, because only the effect was asked for.
    dry_run: bool,
    /// The agents that changed, or would change, sorted by name.
    changed: Vec<ChangedBody>,
    /// The other agents that match.
    unchanged: Vec<UnchangedBody>,
}

/// An agent whose labels changed.
#[derive(Serialize, ToSchema)]
#[schema(as = LabelledAgent)]
pub struct ChangedBody {
    /// ID of the agent.
    #[schema(value_type = String)]
    id: AgentId,
    /// Name of the agent.
    name: String,
}

/// An agent whose labels did not change.
#[derive(Serialize, ToSchema)]
#[schema(as = UnchangedAgent)]
pub struct UnchangedBody {
    /// ID of the agent.
    #[schema(value_type = String)]
    id: AgentId,
    /// Name of the agent. Null if it was deleted in the meantime.
    name: Option<String>,
    /// Why it did not change.
    reason: String,
}

impl LabelledBody {
    fn of(labelled: Labelled, dry_run: bool) -> Self {
        let changed = labelled.changed.into_iter().map(|(id, name)| ChangedBody { id, name });
        let unchanged = labelled.unchanged.into_iter().map(|(id, name, reason)| UnchangedBody { id, name, reason });
        Self { dry_run, changed: changed.collect(), unchanged: unchanged.collect() }
    }
}

/// Label agents
///
/// Sets and removes labels of all agents that match a selector, at most 5,000. Each agent that changes gets an audit
/// record. An agent that would not change stays as it is, so it is safe to send the request again. The caller also needs
/// `agents:read`, because the answer lists the agents. To label one agent, edit it.
#[utoipa::path(
    post, path = "/agents/labels", tag = "Agents", operation_id = "label_agents", request_body = LabelAgents,
    responses(
        (status = 200, description = "Which agents changed.", body = LabelledBody),
        (status = 409, description = "More than 5,000 agents match."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn label(
    State(services): Shared,
    caller: Authorized,
    Body(LabelAgents { selector, change, dry_run }): Body<LabelAgents>,
) -> Result<Json<LabelledBody>, Failure> {
    let labelled = labelling::label(&services, &caller, selector, change, dry_run).await?;
    Ok(Json(LabelledBody::of(labelled, dry_run)))
}
