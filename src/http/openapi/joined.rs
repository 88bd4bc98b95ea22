//! One schema made of two, for what is read in two parts.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema};

/// An object with the members of both, and no others. (`flatten` would make it two schemas of which each forbids what is
/// in the other.)
pub fn joined(description: &str, one: RefOr<Schema>, other: RefOr<Schema>) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new().description(Some(description)).build();
    for part in [one, other] {
        let RefOr::T(Schema::Object(part)) = part else { continue };
        object.properties.extend(part.properties);
        object.required.extend(part.required);
    }
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    object.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::{PartialSchema, ToSchema};

    use super::*;

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "only described")]
    struct One {
        #[schema(example = "x")]
        id: String,
        first: Option<bool>,
    }

    #[derive(ToSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only described")]
    struct Other {
        second: u8,
    }

    #[test]
    fn all_members_are_in_it_and_nothing_else_may_be() {
        let joined = json!(joined("Both.", One::schema(), Other::schema()));
        let names: Vec<_> = joined["properties"].as_object().expect("it is an object").keys().collect();
        assert_eq!(names, ["id", "first", "second"]);
        assert_eq!(joined["required"], json!(["id", "second"]));
        assert_eq!(joined["properties"]["id"]["example"], "x");
        assert_eq!(
            (&joined["additionalProperties"], &joined["description"]),
            (&json!(false), &json!("Both."))
        );
    }
}
