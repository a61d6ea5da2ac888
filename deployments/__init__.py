"""Ray Serve deployments: frame decoder, vision encoder, stateful language model, metrics, web page.

The composition root.  May import everything of `livestar`, `router` and `storage`, and Ray, torch and grpc;
neither `training` nor redis.
"""
