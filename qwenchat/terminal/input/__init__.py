"""What a person types: the prompt, its line and keys, pastes, attachments, the editor, history."""
