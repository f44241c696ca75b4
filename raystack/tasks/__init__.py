"""Tasks that come with raystack. In: a config's `task.args`. Out: a Task, as if the user had written it."""
