"""A program run confined: policy in, result out. Landlock and namespaces, else seccomp, else bubblewrap."""
