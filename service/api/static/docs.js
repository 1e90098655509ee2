// Without validatorUrl: null, Swagger UI would send the schema's address to its maker's host.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
