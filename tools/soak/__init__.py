"""Campaigns that look for broken promises; `python -m eventjobs.tools.soak` runs them.

- `kills`: kill (SIGKILL) or stop (SIGTERM) the service under load. Clients record what they sent
  and received in a History; the Checker compares it with the log after every start.
- `leases`: kill and pause remote workers, and kill the service. Fates record when; the checker of
  `kills` and rules about leases judge the log.
- `hostile`: send malformed, ambiguous and slow requests, each text in every field, and mutations of
  them; then compare answers, streams, memory and sockets with what they have to be.
- `power`: trace the system calls of one run of the service, build the disks that a power cut at any
  moment may leave, and start the service on each.
- `api`: send what schemathesis draws from the OpenAPI document, with an admin's key, a user's and
  none, in each mode of authentication.
- `model_check`: search every order of claims, reports, lost leases, restarts and requests for a few
  jobs, decided by eventjobs.domain.decisions.

A campaign is drawn from a seed, so it can be repeated. Each has sabotages: services with a fault,
which tests/campaigns expect it to find.
"""
