"""A model that a server of this user's has loaded, asked through a Unix socket: nothing is loaded here."""
