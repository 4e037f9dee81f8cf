"""The passes, one file each; `pipelines` names the order in which they run."""
