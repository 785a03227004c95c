//! Which files a command works on.

use std::path::PathBuf;

use clap::Args;
use pipelines::control::sources::SourcePaths;

/// The configuration, and what is said instead of it.
#[derive(Args, Clone, Debug)]
pub(super) struct SourceArguments {
    /// The configuration file (docs/configuration.md).
    #[arg(long, value_name = "FILE", required_unless_present = "manifests")]
    pub(super) config: Option<PathBuf>,
    /// A file or folder of Kubernetes objects, YAML or JSON (docs/kubernetes.md) [default: `[control] manifests`].
    #[arg(long, value_name = "PATH")]
    pub(super) manifests: Option<PathBuf>,
    /// The name of the Node that the gateway stands for [default: `[node] name`].
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
}

impl SourceArguments {
    pub(super) fn paths(&self) -> SourcePaths {
        SourcePaths {
            config: self.config.clone(),
            manifests: self.manifests.clone(),
            node: self.node.clone(),
        }
    }

    /// How to call them in messages.
    pub(super) fn title(&self) -> String {
        let path = self.config.as_ref().or(self.manifests.as_ref());
        path.map(|path| path.display().to_string()).unwrap_or_default()
    }
}
