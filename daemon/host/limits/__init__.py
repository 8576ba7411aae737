"""What a peer may take of the machine that it runs on, for people who need that machine too.
Nothing of training or of the network is in here: who trains or sends asks what it may.
"""
