"""Recordings and their transcripts: datasets, sound files, utterances as batches."""
