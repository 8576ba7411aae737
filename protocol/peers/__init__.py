"""What two peers say to each other: the hello, the frames of a session, the messages and chunks in
them, and the signals by which a path comes about.

May use ``protocol`` and ``protocol.statements``. What is done with a message is not here.
"""
