"""What a person may set of a peer or server without typing it each time: a file, the environment,
flags over them. What the settings are and which values they take, the commands' own options say.
"""
