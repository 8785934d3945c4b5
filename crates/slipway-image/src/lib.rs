//! Images: the content store, the registry client and the Dockerfile builder.
