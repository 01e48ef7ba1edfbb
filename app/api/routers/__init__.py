"""One router per noun. Ownership, queries and retries live below; errors become responses in `app.api.problems`."""
