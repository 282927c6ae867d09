"""The console's process: the web server. Ends with the actor, trusts no page.

__main__   the process: its socket, its port, its end
app        the HTTP and WebSocket paths, and the token
hub        what goes between the actor and all pages
viewer     one page: what it is sent, newest first, and what it may say
handover   who is in control
rates      how much, and how late
encoder    frames to JPEG, once for all pages
recorder   the queue between pictures and replays
replays    the last episodes, on disk
safety     the emergency stop and its release, without the actor
background tasks beside the pages, whose defects are written down
asks       questions of other processes, such as a promotion
"""
