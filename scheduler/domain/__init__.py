"""What a campaign is and what may happen in it: pure rules over the contract's messages, without storage or network.

Nothing in here imports grpc, SQLAlchemy or APScheduler.
"""
