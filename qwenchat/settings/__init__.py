"""Settings: schema, sources (defaults, file, environment, flags), the config file, choices."""
