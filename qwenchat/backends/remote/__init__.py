"""A model on a server that speaks OpenAI's protocol of chats, as a backend.

``connection`` owns HTTP and when to give up; ``events`` takes a stream apart; ``probe`` asks what a server
can, ``counting`` how long a prompt is; ``asking`` makes a request of messages and options; ``answer`` makes
events of what comes back; ``model`` is the backend. httpx2 is imported here alone, when a remote is used.
"""
