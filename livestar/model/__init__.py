"""The model: vision tower, token merging, projector and language model, their file format, tokenizer and prompt."""
