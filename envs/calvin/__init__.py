"""The real CALVIN simulator, in a process of its own: the user's calvin_env installation behind our own interface."""
