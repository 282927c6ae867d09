"""Local services: what starts and stops them, and what keeps them from outliving us.

Importing this room is cheap: no Prefect, no MLflow, no torch.
"""
