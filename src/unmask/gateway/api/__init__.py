"""The API that OpenAI's clients speak: embeddings, reranking, models, tokens, files and batches over one engine."""
