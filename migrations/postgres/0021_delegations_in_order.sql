-- The agents that an agent may act for, in a fixed order.
CREATE INDEX delegations_by_delegate_in_order ON delegations (delegate_id, agent_id);
DROP INDEX delegations_by_delegate;
