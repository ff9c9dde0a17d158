/** The version this program states: `--version`, `prism_build_info`. A test holds it equal to the package's. */
export const version = "0.1.0"
