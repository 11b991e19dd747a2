"""Settings: which there are (schema), where they come from (sources), the config file itself (file)."""
