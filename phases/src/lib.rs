//! The private AI cloud as taskrun plugins.
