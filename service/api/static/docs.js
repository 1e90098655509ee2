// Without validatorUrl: null, Swagger UI would send the schema's address to its maker's host.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });

// Swagger UI has dark colours, below html.dark-mode; it does not look at the browser's preference.
const dark = matchMedia("(prefers-color-scheme: dark)");
const apply = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", apply);
apply();
