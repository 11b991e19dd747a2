"""What ``qwenchat doctor`` looks at, and what it means for a chat."""
