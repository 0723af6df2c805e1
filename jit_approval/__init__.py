"""Just-in-time approval of single API calls for Django REST framework.

A sensitive call is held until a person or a policy approves that exact call, in time; then it runs once.
"""

__version__ = "0.1.0"
