//! What the control thread waits for.

/// Something for the control thread to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// Read the configuration again, whether it looks changed or not.
    Reload,
    /// Something happened in the configuration's folder.
    FileTouched,
    /// Something happened to the manifests.
    ManifestsTouched,
    /// A health check says something else of a backend than before.
    Health {
        /// The number that the backend is checked under.
        id: u64,
        /// What it is now.
        healthy: bool,
    },
    /// End, because of this.
    Stop(&'static str),
}
