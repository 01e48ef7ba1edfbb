"""What outlives a turn: checkpoints of threads, long-term memory per user, and the documents that are searched.

Vectors live in Qdrant. Embedding models are loaded on first use: whoever only lists or deletes never pays for one.
"""
