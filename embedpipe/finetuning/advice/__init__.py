"""`advise`: is fine-tuning worth it?"""
