"""Settings of a run: schema, validation, identity and cost, without torch."""
