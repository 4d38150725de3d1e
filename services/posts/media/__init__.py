"""Pictures of posts: what is uploaded, and what is made of it."""
