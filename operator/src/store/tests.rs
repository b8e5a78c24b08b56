//! Claims about the store, over a folder.
