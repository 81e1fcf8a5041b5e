"""`{% load progrock %}{% job_progress job %}`: a job's live progress in anybody's template."""
