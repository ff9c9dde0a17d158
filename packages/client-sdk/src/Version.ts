/** The version this package states: `prism-agent --version`, and to servers. A test holds it equal to the package's. */
export const version = "0.1.0"
