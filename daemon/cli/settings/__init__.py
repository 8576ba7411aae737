"""What a person may set of a peer or server without typing it each time: a file, the environment,
flags over them. The commands' own options say which settings there are and which values they take.
"""
