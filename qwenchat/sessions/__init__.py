"""Saved chats: the store of session files, their format, listing and search, autosave, resume, export."""
