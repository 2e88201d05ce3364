"""The package for organisers: a bundle together with the code and the list of libraries that translate with it.

Standard library only. `submission.package.contents` says what lies beside the bundle, `package` writes it and
`package_checks` compares a package from outside with that, byte for byte.
"""
